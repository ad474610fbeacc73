"""The run's report: tables, figures and one HTML page that needs nothing beside it."""
