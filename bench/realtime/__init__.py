"""Fan-out, memory and connects of the Socket.IO engine beside Node's socket.io."""
