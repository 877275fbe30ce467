"""The engine: event -> ids -> store -> states and fast memory -> retrieval -> mix."""
