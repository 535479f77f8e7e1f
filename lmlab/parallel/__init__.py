"""How one training program is laid out over devices and processes: partitioners, and processes that find each other."""
