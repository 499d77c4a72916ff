"""The ground: records, keys, files, SQL and the data folder, which every other package stands on."""
