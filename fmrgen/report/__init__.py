"""What people look at: tables, plots, galleries and pages."""
