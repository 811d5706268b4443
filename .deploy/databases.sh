#!/bin/bash
# Run once by a new PostgreSQL: a database and an owner for the registry's index and for Prefect, and a
# role that reads the index and writes nothing, for dashboards and people.
set -euo pipefail
run() { psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" "$@"; }

run --dbname postgres \
  --set registry="$REGISTRY_PASSWORD" --set prefect="$PREFECT_PASSWORD" --set reader="$READER_PASSWORD" <<'SQL'
CREATE ROLE uni_moe LOGIN PASSWORD :'registry';
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE ROLE uni_moe_reader LOGIN PASSWORD :'reader';
ALTER ROLE uni_moe_reader SET default_transaction_read_only = on;
CREATE DATABASE uni_moe OWNER uni_moe;
CREATE DATABASE prefect OWNER prefect;
REVOKE ALL ON DATABASE uni_moe, prefect FROM PUBLIC;
GRANT CONNECT ON DATABASE uni_moe TO uni_moe_reader;
SQL

# The index makes its schema and tables anew when it is rebuilt, so what is made later is granted now.
run --dbname uni_moe <<'SQL'
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE uni_moe GRANT USAGE ON SCHEMAS TO uni_moe_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE uni_moe GRANT SELECT ON TABLES TO uni_moe_reader;
SQL
run --dbname prefect <<'SQL'
CREATE EXTENSION IF NOT EXISTS pg_trgm;
SQL
