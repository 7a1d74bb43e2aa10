"""The embedded single-node Apache Kafka for development and tests."""
