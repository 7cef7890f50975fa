SELECT {key} AS k, {old} AS old FROM pgobserve_old AS o
