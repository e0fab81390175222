"""Reading tables of time series: detection, named repairs, regular grids, and a report of what was done."""

from mamba_data_prep.series.frame import SeriesFrame
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.read import read_series
from mamba_data_prep.series.report import Finding, IngestReport
from mamba_data_prep.series.times.format import TimeFormat
from mamba_data_prep.series.times.frequency import Frequency

__all__ = ["Finding", "Frequency", "IngestReport", "ReadOptions", "SeriesFrame", "TimeFormat", "read_series"]
