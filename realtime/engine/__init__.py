"""The Socket.IO engine: Engine.IO 4 of our own under python-socketio's programming model.

It knows nothing of tenants, the log or any store: `attach` puts a conforming server on any aiohttp application.
"""
