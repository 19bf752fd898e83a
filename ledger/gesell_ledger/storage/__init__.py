"""Speaks SQL: one PostgreSQL, its private server, its schema and its queries. Decides nothing."""
