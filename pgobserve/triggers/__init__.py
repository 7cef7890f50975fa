"""The write side: from registrations to triggers in the database."""
