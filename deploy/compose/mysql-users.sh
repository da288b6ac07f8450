#!/bin/sh
# Run once by the MySQL image, when its volume is empty: a database and a user of its own for each tenant.
set -eu
MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -u root <<SQL
CREATE DATABASE temporal;
CREATE DATABASE temporal_visibility;
CREATE DATABASE evertune CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER 'temporal'@'%' IDENTIFIED BY '$TEMPORAL_DB_PASSWORD';
CREATE USER 'evertune'@'%' IDENTIFIED BY '$EVERTUNE_DB_PASSWORD';
GRANT ALL ON temporal.* TO 'temporal'@'%';
GRANT ALL ON temporal_visibility.* TO 'temporal'@'%';
GRANT ALL ON evertune.* TO 'evertune'@'%';
SQL
