"""The one shared model module: KSDiff and its parts, pure torch."""
