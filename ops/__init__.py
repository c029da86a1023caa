"""What operators run beside Ratchet: Prometheus' rules, Grafana's dashboards, and the list of metrics.

`python -m ops` writes again what is generated: `docs/metrics.md` and `ops/grafana/dashboards/`.
"""
