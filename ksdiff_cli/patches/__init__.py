"""Scenes to training patches: what to cut (plan, layout), from what (sources), into which files (writer)."""
