"""The ground that every other package stands on: records, keys, files, SQL, the data folder."""
