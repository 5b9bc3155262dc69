"""How the service is seen: logs, status, dead letters."""
