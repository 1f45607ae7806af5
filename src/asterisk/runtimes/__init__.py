"""One adapter an engine, all behind one `Runtime`."""
