"""Devices, use cases and budgets: what hardware offers, what people want, what must hold."""
