"""Files, errors, devices and processes: what every other folder may use."""
