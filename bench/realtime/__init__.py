"""The realtime server as it ships, beside Node's socket.io, under one load and in one run."""
