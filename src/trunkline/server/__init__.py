"""DOOR the server: git over HTTP, REST API, pages, live events. `line` walks runs along; the rest lets people and programs in."""
