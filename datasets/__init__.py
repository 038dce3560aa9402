"""Data sets, one file each, registered with Dassl under the names that CoOp's users know."""
