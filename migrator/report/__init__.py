"""Reports as one HTML file each, which needs nothing but itself."""
