"""What a forecast is written as: tables, pictures, and one page."""
