"""From tables to what people read: metrics, curves, Table 1, figures, one web page."""
