"""Pure: which change concerns which subscription, and what each client holds."""
