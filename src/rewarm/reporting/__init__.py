"""What people look at: one HTML file per run or comparison, and tables for the terminal."""
