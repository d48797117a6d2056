"""Jobs in your database, carried by RabbitMQ or by their own table, run by warm workers."""
