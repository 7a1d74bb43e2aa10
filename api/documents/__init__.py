"""What the gateway says about itself: /openapi.json and /asyncapi.json, made from the code."""
