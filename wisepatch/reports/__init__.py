"""Pictures and tables of results, the report page, and model cards."""
