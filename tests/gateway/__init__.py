"""The whole gateway in the test's own process, over loopback, in front of the stub provider."""
