"""S3 servers that tests start: all on loopback, all ended with the test."""
