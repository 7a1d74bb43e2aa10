"""What schemathesis has to be told: lines of JSON are text like any other to it."""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
