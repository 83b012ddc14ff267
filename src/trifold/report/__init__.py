"""Figure data and their drawings; the only place with matplotlib. Knows neither networks nor data."""
