"""What do the engines allow? Written as data by `make generate`."""
