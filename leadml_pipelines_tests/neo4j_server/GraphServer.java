import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.neo4j.configuration.GraphDatabaseSettings;
import org.neo4j.configuration.connectors.BoltConnector;
import org.neo4j.configuration.helpers.SocketAddress;
import org.neo4j.dbms.api.DatabaseManagementService;
import org.neo4j.dbms.api.DatabaseManagementServiceBuilder;
import org.neo4j.io.ByteUnit;

/**
 * A Neo4j server on loopback for the tests.
 *
 * <p>Arguments: data folder, Bolt port, folder with the procedures of Graph Data Science. The first
 * line of standard input is the password of the user neo4j. It prints "ready" once it lets that
 * password in, and ends when standard input does: with the process that started it, however that
 * one ends.
 */
public final class GraphServer {
    private GraphServer() {}

    public static void main(String[] arguments) throws Exception {
        BufferedReader input =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String password = input.readLine();
        DatabaseManagementService server =
                new DatabaseManagementServiceBuilder(Path.of(arguments[0]))
                        .setConfig(BoltConnector.enabled, true)
                        .setConfig(
                                BoltConnector.listen_address,
                                new SocketAddress("127.0.0.1", Integer.parseInt(arguments[1])))
                        .setConfig(GraphDatabaseSettings.auth_enabled, true)
                        // Tests of a wrong password must not lock the right one out.
                        .setConfig(GraphDatabaseSettings.auth_max_failed_attempts, 0)
                        .setConfig(GraphDatabaseSettings.plugin_dir, Path.of(arguments[2]))
                        .setConfig(GraphDatabaseSettings.procedure_unrestricted, List.of("gds.*"))
                        .setConfig(GraphDatabaseSettings.pagecache_memory, ByteUnit.mebiBytes(128))
                        .setConfig(GraphDatabaseSettings.preallocate_logical_logs, false)
                        .build();
        server.database(GraphDatabaseSettings.SYSTEM_DATABASE_NAME)
                .executeTransactionally(
                        "ALTER USER neo4j SET PASSWORD $password CHANGE NOT REQUIRED",
                        Map.of("password", password));
        System.out.println("ready");
        while (input.readLine() != null) {}
        // In order it would take ten seconds, and nobody reads the data again.
        Runtime.getRuntime().halt(0);
    }
}
