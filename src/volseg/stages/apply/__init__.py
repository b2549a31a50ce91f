"""Apply: corrections of objects, made by hand, become a new result."""
