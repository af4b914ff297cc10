"""Speed compared with other packages (`make bench`, see run.py), and studies of cost and calibration."""
