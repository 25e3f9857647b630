"""Views: catalogs that show a part of another catalog, some tools under other names or with fewer arguments."""
