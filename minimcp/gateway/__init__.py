"""The gateway: many servers behind one endpoint, in every revision."""
