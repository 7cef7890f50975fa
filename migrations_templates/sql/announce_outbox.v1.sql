SELECT {schema}.outbox_mark({label}, 'U')
