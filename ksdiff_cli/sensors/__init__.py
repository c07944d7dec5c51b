"""The sensors ksdiff knows, those that people describe in a file, and how either is found by name.

Imports: errors, checks.
"""

from ksdiff_cli.sensors.finding import by_any_name, find_in_name, find_sensor, read_sensor
from ksdiff_cli.sensors.sensor import SENSORS, Sensor, Sources, Span, fold_name

__all__ = [
    "SENSORS",
    "Sensor",
    "Sources",
    "Span",
    "by_any_name",
    "find_in_name",
    "find_sensor",
    "fold_name",
    "read_sensor",
]
