"""The figures of the report, a file each: functions from runs to what is drawn and what is to be said of it."""
