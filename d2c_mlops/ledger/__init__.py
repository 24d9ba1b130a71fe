"""The record of everything that happened: runs, versions, promotions, in one database."""
