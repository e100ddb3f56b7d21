"""In what shape a layer is stored; one file for each form: what it costs, what it loses, and how it is fitted."""
