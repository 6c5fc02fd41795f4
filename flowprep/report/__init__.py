"""Pictures of flow."""
