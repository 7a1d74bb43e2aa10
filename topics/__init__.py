"""What is on the log: the topic catalogue, the events, the codec, provisioning."""
