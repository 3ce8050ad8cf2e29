"""Devices, use cases and budgets: what hardware offers, what people want, what must hold."""

from terazi.devices.catalog import device, devices, use_case, use_cases
from terazi.devices.device import Accelerator, Cpu, Device, Limits, Memory, Power
from terazi.devices.machine import THIS_MACHINE, this_machine
from terazi.devices.quantities import parse_bytes
from terazi.devices.use_case import Budget, UseCase, Weights

__all__ = [
    "THIS_MACHINE",
    "Accelerator",
    "Budget",
    "Cpu",
    "Device",
    "Limits",
    "Memory",
    "Power",
    "UseCase",
    "Weights",
    "device",
    "devices",
    "parse_bytes",
    "this_machine",
    "use_case",
    "use_cases",
]
