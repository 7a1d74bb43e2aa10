"""Read-only queries of the gateway, one file a thing: functions of a transaction, without side effects."""
