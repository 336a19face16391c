"""The acceptance experiments of the controller through the real code, beside peers and beside broken controllers."""
