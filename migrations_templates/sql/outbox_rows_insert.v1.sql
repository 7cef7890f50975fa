SELECT {key} AS k, {new} AS new FROM pgobserve_new AS n
